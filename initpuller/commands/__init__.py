"""One file a command: its options, its help, and what it calls.

Commands import their modules when called: a pod waits for each start, and ``watch`` stays.
"""
