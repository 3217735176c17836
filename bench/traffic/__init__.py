"""Load: how the server bears more calls than it can answer, and whether its memory stays where it is.

python -m bench.traffic overload [--seconds 60]
python -m bench.traffic soak [--minutes 10]
"""
