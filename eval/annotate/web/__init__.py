"""The web application: pages of annotators and of administrators, and what guards them."""
