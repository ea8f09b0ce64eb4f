"""Reports: pictures and tables made from an evaluation, a class map and a run's record alone."""
