-- Onboarding of the data team.
--
--   psql -v ON_ERROR_STOP=1 -1 -v ana_password=… -v ben_password=… -v cleo_password=… -f onboard-team.sql
--
-- Run it as an administrator of the tenant, in the team's database. With -1 it is all or nothing: if anything in here is
-- refused, nobody has been created and no table is there. First passwords come from the ticket system; everybody changes
-- the own one at the first login (\password).

-- What the team may do. Analysts read everything there is; the team's own tables come below.
CREATE ROLE data_team INHERIT readonly;

-- Ana leads the team and may create users herself.
CREATE USER ana WITH PASSWORD :'ana_password' ROLE admin;

-- Ben is an ordinary member.
CREATE USER ben PASSWORD :'ben_password' ROLE data_team;

-- Cleo is a contractor: her contract ends with the year 2099, and one laptop is enough for two connections.
CREATE USER "cleo.contractor"
  PASSWORD :'cleo_password'
  ROLE data_team
  VALID UNTIL '2099-12-31 23:59:59+00'
  CONNECTION LIMIT 2;

GRANT ROLE data_team TO ana;

-- Everybody lands in this database, whatever their client says.
SELECT current_database() AS here \gset
ALTER USER ana SET DEFAULT DATABASE :"here";
ALTER USER ben SET DEFAULT DATABASE :"here";
GRANT CONNECT ON DATABASE :"here" TO ana, ben, "cleo.contractor";

-- The team's schema. Ben fills it, Cleo only reads: she has that from her role.
CREATE SCHEMA data_team_work;
CREATE TABLE data_team_work.report (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  title text NOT NULL,
  made_by name NOT NULL DEFAULT current_user
);
GRANT USAGE ON SCHEMA data_team_work TO data_team;
GRANT SELECT ON data_team_work.report TO data_team;
GRANT INSERT, UPDATE ON data_team_work.report TO ben; -- by name: not for the whole team
INSERT INTO data_team_work.report (title) VALUES ('Welcome');

-- For the ticket.
SHOW GRANTS FOR ben;
SHOW PERMISSIONS ON data_team_work.report FOR ben;
