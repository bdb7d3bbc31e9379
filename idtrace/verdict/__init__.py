"""The verdict of a scan: facts in, findings out, USE, HOLD or DO NOT USE. Pure."""
