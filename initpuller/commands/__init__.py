"""One file a command: its options, its help, and what it calls.

What a command needs is imported when it is called: a pod waits for each start, and ``watch`` stays.
"""
