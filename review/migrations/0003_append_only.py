"""The record of a read is append-only by the database itself, and a locked read stays locked.

ENABLE ALWAYS keeps the triggers firing under session_replication_role = replica (as in the trail's migration).
"""

from django.db import migrations

APPENDED = (
    *("review_call", "review_mark", "review_markremoval", "review_decision"),
    *("review_shownmanifest", "review_signature", "review_amendment"),
)
OF_A_READ = ("review_call", "review_mark", "review_markremoval", "review_decision")

FUNCTIONS = r"""
CREATE FUNCTION review_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'The record of a read is append-only: % on % is refused.', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;

-- Nothing is added to a signed read, and nothing unaided to a locked one.
CREATE FUNCTION review_check_append() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    read_phase text;
BEGIN
    SELECT phase INTO read_phase FROM review_read WHERE id = NEW.read_id FOR UPDATE;
    IF read_phase = 'signed' THEN
        RAISE EXCEPTION 'The read is signed: nothing can be added to it.' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF read_phase <> 'unaided' AND to_jsonb(NEW) ->> 'stage' = 'unaided' THEN
        RAISE EXCEPTION 'The unaided read is locked: nothing unaided can be added to it.'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF read_phase = 'unaided' AND (TG_TABLE_NAME = 'review_decision' OR to_jsonb(NEW) ->> 'stage' = 'final') THEN
        RAISE EXCEPTION 'The unaided read is not locked: nothing aided can be added to it.'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION review_check_read() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.slide_id <> OLD.slide_id OR NEW.reader_id <> OLD.reader_id OR NEW.protocol <> OLD.protocol
       OR NEW.started_at <> OLD.started_at THEN
        RAISE EXCEPTION 'Slide, reader, protocol and start of a read do not change.'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.version < OLD.version THEN
        RAISE EXCEPTION 'The version of a read only grows.' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF OLD.locked_at IS NOT NULL AND (NEW.phase = 'unaided' OR NEW.locked_at IS DISTINCT FROM OLD.locked_at) THEN
        RAISE EXCEPTION 'A locked read cannot be unlocked.' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.phase <> 'unaided' AND NEW.locked_at IS NULL THEN
        RAISE EXCEPTION 'A read is locked before it goes on.' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.run_id IS NOT NULL AND NEW.phase = 'unaided' THEN
        RAISE EXCEPTION 'An unaided read shows no AI result.' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF (OLD.run_id IS NOT NULL AND NEW.run_id IS DISTINCT FROM OLD.run_id)
       OR (OLD.revealed_at IS NOT NULL AND NEW.revealed_at IS DISTINCT FROM OLD.revealed_at) THEN
        RAISE EXCEPTION 'What was revealed in a read stays as it was.' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
"""


def _refuse(table: str) -> str:
    return f"""
CREATE TRIGGER {table}_refuse_change BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION review_refuse();
CREATE TRIGGER {table}_refuse_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION review_refuse();
ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_refuse_change;
ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_refuse_truncate;
"""


def _check_append(table: str) -> str:
    return f"""
CREATE TRIGGER {table}_check_append BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION review_check_append();
ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_check_append;
"""


READ_TRIGGERS = """
CREATE TRIGGER review_read_check_change BEFORE UPDATE ON review_read FOR EACH ROW EXECUTE FUNCTION review_check_read();
CREATE TRIGGER review_read_refuse_delete BEFORE DELETE ON review_read FOR EACH ROW EXECUTE FUNCTION review_refuse();
CREATE TRIGGER review_read_refuse_truncate BEFORE TRUNCATE ON review_read
    FOR EACH STATEMENT EXECUTE FUNCTION review_refuse();
ALTER TABLE review_read ENABLE ALWAYS TRIGGER review_read_check_change;
ALTER TABLE review_read ENABLE ALWAYS TRIGGER review_read_refuse_delete;
ALTER TABLE review_read ENABLE ALWAYS TRIGGER review_read_refuse_truncate;
"""

REVOKE = f"""
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'metadet_app') THEN
        REVOKE UPDATE, DELETE, TRUNCATE ON {", ".join(APPENDED)} FROM metadet_app;
        REVOKE DELETE, TRUNCATE ON review_read FROM metadet_app;
    END IF;
END $$;
"""

FORWARD = "".join([FUNCTIONS, *map(_refuse, APPENDED), *map(_check_append, OF_A_READ), READ_TRIGGERS, REVOKE])
BACKWARD = "".join(
    [
        *(
            f"DROP TRIGGER {table}_refuse_change ON {table}; DROP TRIGGER {table}_refuse_truncate ON {table};\n"
            for table in APPENDED
        ),
        *(f"DROP TRIGGER {table}_check_append ON {table};\n" for table in OF_A_READ),
        "DROP TRIGGER review_read_check_change ON review_read;\n",
        "DROP TRIGGER review_read_refuse_delete ON review_read;\n",
        "DROP TRIGGER review_read_refuse_truncate ON review_read;\n",
        "DROP FUNCTION review_refuse(); DROP FUNCTION review_check_append(); DROP FUNCTION review_check_read();\n",
    ]
)


class Migration(migrations.Migration):
    dependencies = [("review", "0002_shown_manifest")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
