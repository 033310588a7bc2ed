"""The naive NumPy twin of everything that is fast elsewhere, written to be read as the specification.

Nothing here imports the kernels or `intsmooth.fixedpoint`: a twin that shares the fast path's helpers proves nothing.
Only NumPy is needed, every width is explicit (int8 data, int32 accumulators, int64 for one product), and no float
occurs. Arrays carry the batch first: images are (N, height, width, channels), vectors (N, features).
"""
