"""The fault laboratory: real processes, faults at random, ledgers outside of them, one checker.

`ledgers` is what was seen, `checker` what is to be said of it; `laboratory` has the processes,
`nemesis` breaks them, and each module of `scenarios` is one kind of fault with its figures. The
short form runs with the tests, the long one by `make faults`.
"""
