"""Many runs from one recipe: methods by directions by draws, resumable, on several processes or machines."""
