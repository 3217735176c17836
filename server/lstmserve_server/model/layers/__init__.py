"""The layers of a chain, one small class per kind.

`base` says what a layer is. A new kind is a class in the room that fits it, a line in `kinds`, and a rule in `loading`.
"""
