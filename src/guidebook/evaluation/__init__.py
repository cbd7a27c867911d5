"""What was reached and how sure it is: metrics on labels, intervals, and the records they are kept in."""
