"""Load: how the server bears more calls than it can answer, and whether its memory stays where it is.

python -m tests.load overload [--seconds 60]
python -m tests.load soak [--minutes 10]
"""
