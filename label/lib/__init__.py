"""What the app is made of: the bundle it serves, its tasks, its datastore and its limits."""
