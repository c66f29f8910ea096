"""The chain of hashes and the refusal of every change, as triggers of the database.

Own plpgsql instead of a library's: an ORM-side protection can be switched off by the code it protects against. ENABLE
ALWAYS keeps the triggers firing under session_replication_role = replica.
"""

from django.db import migrations

FORWARD = r"""
CREATE FUNCTION audit_trail_chain() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last record;
BEGIN
    -- One writer at a time, to the end of its transaction: the sequence has no gaps and the chain no forks.
    PERFORM pg_advisory_xact_lock(1835365473);
    SELECT seq, at, hash INTO last FROM audit_trail_event ORDER BY seq DESC LIMIT 1;
    NEW.seq := COALESCE(last.seq, 0) + 1;
    NEW.at := GREATEST(clock_timestamp(), last.at + interval '1 microsecond');
    NEW.format_version := 1;
    NEW.prev_hash := COALESCE(last.hash, repeat('0', 64));
    NEW.hash := encode(sha256(convert_to(
        NEW.prev_hash || E'\n' || NEW.seq::text || E'\n'
        || to_char(NEW.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || E'\n' || NEW.body, 'UTF8')), 'hex');
    RETURN NEW;
END $$;

CREATE FUNCTION audit_trail_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'The trail is append-only: % on % is refused.', TG_OP, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER audit_trail_chain BEFORE INSERT ON audit_trail_event
    FOR EACH ROW EXECUTE FUNCTION audit_trail_chain();
CREATE TRIGGER audit_trail_refuse_change BEFORE UPDATE OR DELETE ON audit_trail_event
    FOR EACH ROW EXECUTE FUNCTION audit_trail_refuse();
CREATE TRIGGER audit_trail_refuse_truncate BEFORE TRUNCATE ON audit_trail_event
    FOR EACH STATEMENT EXECUTE FUNCTION audit_trail_refuse();
CREATE TRIGGER audit_trail_checkpoint_refuse_change BEFORE UPDATE OR DELETE ON audit_trail_checkpoint
    FOR EACH ROW EXECUTE FUNCTION audit_trail_refuse();
CREATE TRIGGER audit_trail_checkpoint_refuse_truncate BEFORE TRUNCATE ON audit_trail_checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION audit_trail_refuse();

ALTER TABLE audit_trail_event ENABLE ALWAYS TRIGGER audit_trail_chain;
ALTER TABLE audit_trail_event ENABLE ALWAYS TRIGGER audit_trail_refuse_change;
ALTER TABLE audit_trail_event ENABLE ALWAYS TRIGGER audit_trail_refuse_truncate;
ALTER TABLE audit_trail_checkpoint ENABLE ALWAYS TRIGGER audit_trail_checkpoint_refuse_change;
ALTER TABLE audit_trail_checkpoint ENABLE ALWAYS TRIGGER audit_trail_checkpoint_refuse_truncate;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'metadet_app') THEN
        REVOKE UPDATE, DELETE, TRUNCATE ON audit_trail_event, audit_trail_checkpoint FROM metadet_app;
        GRANT SELECT, INSERT ON audit_trail_event, audit_trail_checkpoint TO metadet_app;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'metadet_auditor') THEN
        GRANT SELECT ON audit_trail_event, audit_trail_checkpoint TO metadet_auditor;
    END IF;
END $$;
"""

BACKWARD = """
DROP TRIGGER audit_trail_chain ON audit_trail_event;
DROP TRIGGER audit_trail_refuse_change ON audit_trail_event;
DROP TRIGGER audit_trail_refuse_truncate ON audit_trail_event;
DROP TRIGGER audit_trail_checkpoint_refuse_change ON audit_trail_checkpoint;
DROP TRIGGER audit_trail_checkpoint_refuse_truncate ON audit_trail_checkpoint;
DROP FUNCTION audit_trail_chain();
DROP FUNCTION audit_trail_refuse();
"""


class Migration(migrations.Migration):
    dependencies = [("audit_trail", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
