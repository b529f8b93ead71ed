"""The engine. To read it: tensor, primitive (the one definition form), recording, autodiff (the tape), broadcasting.

`modes` is what is in force meanwhile: `no_grad`, `debug`, scopes.
"""
