"""Which major versions of PostgreSQL are kept here; docs/adding-a-postgres-version.md says where
else one must be made known."""

VERSION_MIN, VERSION_MAX = 14, 18
VERSIONS = tuple(range(VERSION_MIN, VERSION_MAX + 1))
NAMED = f"{VERSION_MIN} to {VERSION_MAX}"
