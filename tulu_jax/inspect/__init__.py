"""Looking at instruction data: statistics, checks, the viewer, the HTML report, Table 1."""
