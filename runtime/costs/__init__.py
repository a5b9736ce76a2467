"""Cost models of targets: predicted from data sheets, measured here, and read from files."""
