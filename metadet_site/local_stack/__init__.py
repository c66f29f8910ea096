"""The parts that `make run` brings along: an embedded PostgreSQL, an embedded Valkey, and what watches over them all.

Nothing here imports Django: the supervisor stays small and starts at once. What needs Django (migrations, the web server,
the workers, the scheduler) runs as its children.

Two processes stand watch. `guard` is what the person started; `up` is its child and does the work. Each is the other's
safety: killed -9, the guard takes the supervisor down in order, and the supervisor leaves its children to the guard, which
adopts every one of them, grandchildren too, and ends them.
"""
