"""What several verbs share, and the pages that single ones print; no verb is here."""
