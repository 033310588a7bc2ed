"""Integer noise in levels: exact tables of two laws, streams that are a function of what they belong to, and a sampler.

    enclosure   exp and the Gaussian tail, each between two integers
    law         tables of 64-bit thresholds, and their distance from the law
    stream      seeds, image digests, keys
    sampler     noise on request, on either backend
    selftest    checks of the noise that a machine really produces
"""
