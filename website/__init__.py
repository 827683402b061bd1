"""The documentation as a site: `make site` writes it to build/website/site."""
