"""The cold chain: temperature profiles, readings, and the rules by which they are judged. Pure."""
