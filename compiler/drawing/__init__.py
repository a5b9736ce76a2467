"""Pages and pictures: report.html, charts, the picture of a network."""
