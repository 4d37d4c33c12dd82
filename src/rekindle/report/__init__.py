"""Pictures, tables and pages made from run folders; nothing here trains."""
