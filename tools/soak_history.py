"""Pages that a soak run reads again: what was answered at an LSN must be answered there for ever.

Whatever flush, compaction and garbage collection did since: the same page, or, below the horizon
and where no point keeps the LSN, an error that says so.
"""

from dataclasses import dataclass, field
from random import Random

from crc32c import crc32c

from formats import lsn as lsn_text
from formats.chunk import Fork
from server.client import PageClient, PageServerError

PAGES_PER_LSN = 64
REREAD_LSNS = 2
POINT_SHARE = 1 / 4
POINTS_MAX = 20
BELOW_HORIZON = "below the horizon"
Place = tuple[int, int, int, int, int]
"""spc, db, rel, fork, block"""


@dataclass
class PageHistory:
    """What was answered so far."""

    random: Random
    seen: dict[int, dict[Place, int]] = field(default_factory=dict)
    """LSN → place → CRC of the page."""
    points: dict[int, float] = field(default_factory=dict)
    """LSNs that are kept by a point, and when it was made, in seconds of the run."""
    pages_read_again: int = 0
    lsns_expired: int = 0
    differences: list[str] = field(default_factory=list)

    def note(self, client: PageClient, lsn: int, seconds: float) -> None:
        """Read random pages at an LSN that is ready; now and then, a point shall keep it."""
        forks = [fork for fork in client.relations(lsn) if fork[4] and fork[3] != Fork.FSM]
        weights = [blocks for *_, blocks in forks]
        pages = {}
        for spc, db, rel, fork, blocks in self.random.choices(forks, weights, k=PAGES_PER_LSN):
            place = spc, db, rel, fork, self.random.randrange(blocks)
            pages[place] = crc32c(client.get_page(*place, lsn))
        self.seen[lsn] = pages
        if len(self.points) < POINTS_MAX and self.random.random() < POINT_SHARE:
            client.query(f"point create soak-{lsn:x} {lsn_text.show(lsn)}")
            self.points[lsn] = seconds

    def check_points(self, client: PageClient, since: float) -> None:
        """The server's directory was lost: only points that were made `since` may be, too."""
        held = {lsn_text.parse((row[1] or b"").decode()) for row in client.query("point list")}
        for lsn in [lsn for lsn in self.points if lsn not in held]:
            if self.points.pop(lsn) < since:
                self.differences.append(f"the point at {lsn_text.show(lsn)} is lost")
            self.seen.pop(lsn, None)

    def read_again(self, client: PageClient) -> None:
        """All pages of a few LSNs."""
        for lsn in self.random.sample(sorted(self.seen), min(REREAD_LSNS, len(self.seen))):
            self.compare(client, lsn)

    def compare(self, client: PageClient, lsn: int) -> None:
        for place, crc in self.seen[lsn].items():
            try:
                page = client.get_page(*place, lsn)
            except PageServerError as error:
                horizon = lsn_text.parse(str(client.status()["horizon_lsn"]))
                if lsn not in self.points and BELOW_HORIZON in str(error) and lsn < horizon:
                    del self.seen[lsn]
                    self.lsns_expired += 1
                    return
                self.differences.append(f"{place} at {lsn_text.show(lsn)}: {error}")
                continue
            self.pages_read_again += 1
            if crc32c(page) != crc:
                self.differences.append(
                    f"{place} at {lsn_text.show(lsn)}: another page than before"
                )
