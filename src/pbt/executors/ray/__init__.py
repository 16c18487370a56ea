"""Workers as Ray actors, on any number of machines. Ray is imported only when a cluster is needed."""
