"""Test tools for users: contract suites, invariants of runs, and toy problems.

Subclass a contract in a test file of your own, implement its one method, and run pytest:

| To test your own | subclass | method |
|---|---|---|
| executor | `executors.ExecutorContract` | `make_executor(setup)` |
| executor, with every form of torch task | `handover.HandoverContract` | `make_executor(setup)` |
| store | `stores.StoreContract` | `make_store(meta)` |
| strategy | `strategies.StrategyContract` | `make_strategy()` |

`invariants.violations(run_dir)` lists what is impossible in a sound run, for a task or strategy that was trained for
real. `problems` has toys whose best schedule is known. `states.check_close` compares two states within a tolerance.
`handover` needs pytest and Hypothesis; nothing else here needs more than the package.
"""
