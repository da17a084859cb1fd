"""`tapefs doctor`: what tape devices there are, and what stands in their way. It changes nothing but a scratch tape."""
