"""The pictures of runs in a browser, redrawn while the runs go on. Everything here only reads.

`pbt.dashboard.serve.serve("runs")` answers on this machine alone until it is told otherwise. `watch` sees what
changed, `desk` makes each page once for everybody who asks and as rarely as it must, `guard` turns strangers away,
`bounds` limits connections, `app` has the addresses, and `page/` is what the browser gets.
"""

HOST, PORT = "127.0.0.1", 6007
"""Where it listens, if nobody says otherwise."""
