"""Grafana dashboards as code: four boards, written as JSON by `generate`."""
