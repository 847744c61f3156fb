"""What is told of changes: transitions between two statuses, and who reads them."""
