"""The report of runs in a browser, updated while they train. All modules only read.

`pbt.dashboard.serve.serve("runs")` listens on the local machine unless another host is given. `watch` detects changes,
`cache` renders each page once per version within a CPU budget, `security` rejects foreign requests, `limits` bounds
connections, `app` has the routes, and `page/` the files for the browser.
"""

HOST, PORT = "127.0.0.1", 6007
"""The default address."""
TOKEN = "PBT_DASHBOARD_TOKEN"  # noqa: S105 (the name of a variable)
"""The environment variable of the token."""
