"""What runs on every host: starts the workers of that host, watches them, and leaves nothing behind.

Two processes: the guard (guard.py) holds the lease and kills; the agent (agent.py), its child, does the rest.
Standard library only, and little of it (no pathlib, no dataclasses): every start waits for its imports.
"""
