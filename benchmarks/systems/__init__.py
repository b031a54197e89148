"""Who answers: one module for each kind of system, and the registry of the table's rows."""
