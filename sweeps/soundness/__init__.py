"""Whether what is committed is as it was: asked by `verify` of all, by a resume of some."""
