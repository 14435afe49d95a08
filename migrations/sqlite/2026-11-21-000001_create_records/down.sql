DROP TABLE installation;
DROP TABLE artifacts;
DROP TABLE array_terms;
DROP TABLE changes;
DROP TABLE records;
