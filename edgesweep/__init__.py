"""edgesweep: sweeps over computational graphs of neural networks.

The folders `engine`, `tasks`, `storage`, `sweeps` and `dashboards` of the repository are this
package's parts, by links, so that nothing but `edgesweep` lands in a user's Python.
"""
