"""The layers of a model, one small class per kind.

`base` defines what a layer is. A new kind is a class in the module that fits it, a line in `registry`, and a rule in
`loading.build.rules`.
"""
