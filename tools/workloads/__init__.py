"""Loads that drive a real server: what the oracles compare is what these make PostgreSQL log.

Each module has one or more functions `run(server, seed, seconds)`, which return when the load is
over and leave the server running. ALL names them, with the settings that they need.
"""

from tools.workloads import clusters, fuzzer, pgbench, regression, sql_loads
from tools.workloads.workload import LOGICAL, Workload

ALL = (
    Workload("access methods", sql_loads.run_access_methods, checksums=False),
    Workload("deep btree", sql_loads.run_deep_btree, checksums=True),
    Workload("churn", sql_loads.run_churn, checksums=True),
    Workload("transactions", sql_loads.run_transactions, LOGICAL, checksums=False),
    Workload("databases and tablespaces", clusters.run, LOGICAL, checksums=True),
    Workload("multixacts", pgbench.run_multixacts, LOGICAL, checksums=False),
    Workload("pgbench", pgbench.run, {"track_commit_timestamp": "on"}, checksums=True),
    Workload("SQL fuzzer", fuzzer.run, fuzzer.SETTINGS, checksums=False),
    Workload("regression suite", regression.run, regression.SETTINGS, checksums=False),
)
