"""The `pbt` command; `app` has the commands, the other modules what they do."""
