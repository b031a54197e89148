"""The inverted index in memory: lists, scores, votes, candidates."""
