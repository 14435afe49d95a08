DELETE FROM installation WHERE name = 'accounts';
DROP TABLE signing_keys;
DROP TABLE sessions;
DROP TABLE api_keys;
DROP TABLE users;
DROP FUNCTION terrace_foreign_account;
