-- The three roles of a metadet database, and what each may do by default. Run as a superuser inside the database, at
-- every start: each line may be repeated. Passwords are set apart from this file.
--
--   metadet_owner    owns the tables; used by `manage.py migrate` alone
--   metadet_app      the running product: may read and change rows, owns nothing, cannot alter a table or a trigger.
--                    The trail's own migration takes UPDATE, DELETE and TRUNCATE on the trail away from it.
--   metadet_auditor  reads, for queries by hand
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['metadet_owner', 'metadet_app', 'metadet_auditor'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', name);
        END IF;
        EXECUTE format('ALTER ROLE %I NOSUPERUSER NOCREATEROLE NOREPLICATION NOBYPASSRLS', name);
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), name);
    END LOOP;
    EXECUTE format('ALTER DATABASE %I OWNER TO metadet_owner', current_database());
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
END $$;

ALTER ROLE metadet_auditor SET default_transaction_read_only = on;
ALTER SCHEMA public OWNER TO metadet_owner;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO metadet_app, metadet_auditor;

ALTER DEFAULT PRIVILEGES FOR ROLE metadet_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO metadet_app;
ALTER DEFAULT PRIVILEGES FOR ROLE metadet_owner IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO metadet_app;
ALTER DEFAULT PRIVILEGES FOR ROLE metadet_owner IN SCHEMA public GRANT SELECT ON TABLES TO metadet_auditor;
