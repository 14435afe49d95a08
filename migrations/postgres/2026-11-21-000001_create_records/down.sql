DROP TABLE records;
DROP FUNCTION terrace_refuse_truncate, terrace_foreign_change, terrace_foreign_write, terrace_now;
DROP FUNCTION terrace_timeline;
DROP FUNCTION terrace_query, terrace_vector, terrace_words, terrace_unaccented;
DROP TEXT SEARCH CONFIGURATION terrace;
DROP TEXT SEARCH DICTIONARY terrace_porter;
DROP TABLE installation;
DROP TABLE artifacts;
DROP TABLE changes;
