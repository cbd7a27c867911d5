"""How far apart domains are, before anything is trained: first in form, then in content."""
