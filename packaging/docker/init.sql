CREATE EXTENSION envelope_pg;
