"""Training of the modular-addition transformer. (Of dictionaries and networks of arrays:
`sweeps.command`.)"""
