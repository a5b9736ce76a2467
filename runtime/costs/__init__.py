"""Cost models out of measurements and data sheets, and the file that keeps them."""
