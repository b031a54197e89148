"""From features to an answer: candidates, ranking, expansion, explanation."""
