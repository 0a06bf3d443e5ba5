"""Result files to pages, tables and figures. Needs no torch."""
