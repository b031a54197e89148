"""Is this machine, this database, this photo fit? Self-test, speed, reference quality, pictures of matches."""
